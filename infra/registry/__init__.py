"""Container registries over the distribution API: an image is appended to, pushed and read back without an engine.

layer.py makes the bytes, oci_manifests.py manifests and configs. client.py speaks to one registry, upload.py sends a
blob, append.py puts them together.
Source of the protocol: https://github.com/opencontainers/distribution-spec and image-spec, version 1.1.
"""
