"""A session with a picture in it, restored after kill -9. Run it with `make demo`."""
