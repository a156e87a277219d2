"""How well a bundle shows a world: parts that are measured one by one, and the report of them."""
