"""A release as an MLflow pyfunc: `loader.py` goes into the model and needs no packhouse there, `folder.py` makes the
model's folder. docs/mlflow.md."""
