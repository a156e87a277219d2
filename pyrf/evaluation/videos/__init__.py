"""What can be measured of any videos without a large network: motion, drift, flicker, borders, copying."""
