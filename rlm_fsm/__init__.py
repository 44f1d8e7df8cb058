"""A runtime for Recursive Language Models."""
