"""Our manifests on hundreds of nodes that exist in the API server alone, under Kubernetes' own controllers and KEDA."""
