"""The store: durable truth.

catalog   the abstract catalog and its records; sql_catalog implements it
blobs     the abstract blob store; file_blobs implements it
pages     the container format of one page
store     a data directory: the two together, and collection
damage    what is raised when stored bytes cannot be trusted
"""
