"""The server that goes into a model's image: one release, read from a folder. docs/serving.md.

Imports packhouse, and nothing else of infra: this folder and packhouse are enough.
"""
