"""The store: durable truth. It knows no gRPC, no protobuf, no llama.cpp; payloads and pages are opaque.

store        a data directory: catalog and blobs together, and collection
catalog      the abstract catalog and its records
sql_catalog  the catalog in SQLite: database (the thread), schema, sql_* (one file a noun)
blobs        the abstract blob store
file_blobs   blobs as files
pages        the container format of one page
digest       keyed digests
gate         the lock between writers and collection
data_dir     start-up checks and the lock of the directory
damage       what is raised when stored bytes cannot be trusted
"""
