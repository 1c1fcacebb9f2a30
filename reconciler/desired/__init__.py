"""What should be: from YAML to resources."""
