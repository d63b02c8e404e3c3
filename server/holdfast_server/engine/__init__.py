"""The engine room: slots, batches and sampling on one thread; knows no store, no gRPC."""
