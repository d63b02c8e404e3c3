"""The sessions room: journals, chat, checkpoints. Knows no gRPC, no SQL, no llama.cpp."""
