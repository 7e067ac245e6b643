"""The mesh on one machine: its state folder, its processes, and who watches them."""
