"""How fast is an op? It is checked, timed with its spread, and compared with the machine's peaks."""
