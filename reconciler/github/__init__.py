"""GitHub's REST API, as far as we need it: one comment, one issue, commit statuses, and the plan a pull request showed.

What GitHub answers was written by others, such as the texts of comments; it is compared and passed on, never run.
"""
