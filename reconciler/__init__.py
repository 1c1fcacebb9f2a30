"""GitOps for a self-hosted mail stack: a directory of YAML says how it should be."""

__version__ = "0.1.0"
