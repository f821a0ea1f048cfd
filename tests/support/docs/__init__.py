"""The generated parts of docs/: `make docs`, or `python -m tests.support.docs`, writes them anew."""
