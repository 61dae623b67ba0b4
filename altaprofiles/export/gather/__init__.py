"""What an export fetches, made durable as it arrives.

Named as the sources it reads from: `gather.chains` reads `sources.chains`.
"""
