"""A database that ends connections which nobody has used for a second and a half."""
