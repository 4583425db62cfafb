"""What Grafana calls: the services, the instances and everything that answers a request."""
