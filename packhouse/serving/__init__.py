"""How is a release served? The model server, one release read from a folder. docs/serving.md."""
