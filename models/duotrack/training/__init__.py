"""Training of the student: samples, losses and the loop."""
