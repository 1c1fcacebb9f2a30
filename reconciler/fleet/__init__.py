"""A fleet: hundreds of stacks on PostgreSQL, each by the very cycle that the daemon runs for one."""
