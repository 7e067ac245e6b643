"""Kubernetes and Istio, their real control planes."""
