"""`flash deploy`, `status`, `logs` and `undeploy`: environments, and the targets that they name."""
