"""Declarative binary messages. Floor 0."""
