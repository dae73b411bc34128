# What you decide. Your values go into terraform.tfvars in this folder.
# Change nothing here.

variable "name" {
  description = "Name of the user pool, and what its clients' names begin with."
  type        = string
  default     = "kubeflow"
}

variable "domain" {
  description = "Prefix of the sign-in domain: DOMAIN.auth.REGION.amazoncognito.com. Unique in the region."
  type        = string
}

variable "hosts" {
  description = "Hosts that the load balancer answers at; the first is where sign-out leads."
  type        = list(string)

  validation {
    condition     = length(var.hosts) > 0
    error_message = "At least one host."
  }
}

variable "identity_providers" {
  description = "Who may sign users in: COGNITO, and the names of SAML or OIDC providers of the pool."
  type        = list(string)
  default     = ["COGNITO"]
}

variable "machine_clients" {
  description = "Names of machine clients (machineClients of istio/chart)."
  type        = list(string)
  default     = []
}
