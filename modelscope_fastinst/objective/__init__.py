"""What training minimises: matching, sampled points, losses."""
