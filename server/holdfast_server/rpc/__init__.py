"""The gRPC room: the contract on one side, domain values on the other."""
