"""The starts compared: their weights' origins, their wording, and the floors beside them."""
