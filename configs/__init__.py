"""Configurations: YAML files that hold what differs from the defaults beside the code that they configure."""
