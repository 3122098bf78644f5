"""Speed: this project beside the limit and its peers, all in one run on the same two cores. `make bench`."""
