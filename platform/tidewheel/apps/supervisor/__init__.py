"""The local platform's supervisor: keeps its processes running and says how they are."""
