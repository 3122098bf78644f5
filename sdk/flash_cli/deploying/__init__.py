"""`flash deploy`, `status`, `logs` and `undeploy`: environments and their targets."""
