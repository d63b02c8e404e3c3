#!/usr/bin/env bash
# Generates the Python code of the contract into the folder given (default: client/python).
# Runs protoc from .venv-proto: code made by a newer protoc refuses older grpcio and protobuf.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-client/python}
.venv-proto/bin/python -m grpc_tools.protoc -I protos \
  --plugin=protoc-gen-mypy=.venv-proto/bin/protoc-gen-mypy \
  --plugin=protoc-gen-mypy_grpc=.venv-proto/bin/protoc-gen-mypy_grpc \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  protos/holdfast/v1/*.proto
