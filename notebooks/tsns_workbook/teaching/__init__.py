"""The lessons: the student's copies, guesses and what they are compared with, and the exercises' checks."""
