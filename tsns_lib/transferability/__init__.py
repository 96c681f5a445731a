"""Other answers to what will transfer: one method a file; the selection of neurons knows none of them."""
