"""The kinds of export: each fetches its records and makes them durable as they arrive.

Files are named as the sources it reads from: `gather.chains` reads `sources.chains`.
"""
