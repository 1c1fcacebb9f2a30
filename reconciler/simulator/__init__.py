"""Wire-level fakes of the systems we keep, for the demo, the tests and dry runs."""
