"""The paper's numbers, our statistics over a transfer grid, and the tables and figures that show both."""
