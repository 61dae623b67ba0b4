"""`altaprofiles doctor`: examines a set-up step by step, with a remedy for each problem."""
