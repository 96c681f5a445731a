"""Some tests of faults run notebooks in a small project of their own."""

from tiny_project import project

__all__ = ["project"]
