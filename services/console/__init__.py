"""The console: pages for people, in front of the trainer's, policy's and reward's HTTP APIs.

What it shows of jobs and models, the services know; of its own it has people and what they judged.
"""
