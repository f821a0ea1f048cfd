"""What runs inside the sandbox: one plain function a stage, in a child process of its own.

Takes paths and plain JSON, writes files below its working folder, returns plain JSON. Here, and nowhere else, are
torch and onnx imported; Prefect is not. The tasks beside this folder call these by name through infra.sandbox.client.
"""
