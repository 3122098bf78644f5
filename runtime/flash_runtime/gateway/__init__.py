"""What is decided about a request on the I/O loop, before user code runs."""
