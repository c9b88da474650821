"""Public sources on the network: what they are, what their licences require, and how to fetch them intact."""
