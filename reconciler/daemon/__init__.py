"""The daemon: follows a source of desired state, heals what differs, and tells what a person should know."""
