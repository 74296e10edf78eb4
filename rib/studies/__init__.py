"""What is drawn from a grid: a table, a paragraph made from its numbers, figures. One file a question."""
