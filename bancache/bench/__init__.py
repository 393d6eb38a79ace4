"""What a machine makes of a cache: each part of the work timed, beside what it could cost at best."""
