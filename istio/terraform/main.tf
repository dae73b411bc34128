# The Cognito side: user pool, sign-in domain, the load balancer's app client, and one for each machine client.
# Change nothing here: the variables are in variables.tf, your values go into terraform.tfvars.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40, < 7.0"
    }
  }
}

resource "aws_cognito_user_pool" "users" {
  name                     = var.name
  username_attributes      = ["email"]
  auto_verified_attributes = ["email"]
  mfa_configuration        = "OPTIONAL"
  deletion_protection      = "ACTIVE"

  # A new address counts only after its owner confirmed it: until then, the old one stays.
  user_attribute_update_settings {
    attributes_require_verification_before_update = ["email"]
  }

  # No sign-up by users.
  admin_create_user_config {
    allow_admin_create_user_only = true
  }

  software_token_mfa_configuration {
    enabled = true
  }

  username_configuration {
    case_sensitive = false
  }

  # custom:groups is in the load balancer's token. A SAML or OIDC provider of the pool maps its groups to it.
  schema {
    name                = "groups"
    attribute_data_type = "String"
    mutable             = true
    string_attribute_constraints {
      min_length = 0
      max_length = 2048
    }
  }
}

resource "aws_cognito_user_pool_domain" "sign_in" {
  user_pool_id = aws_cognito_user_pool.users.id
  domain       = var.domain
}

resource "aws_cognito_user_pool_client" "load_balancer" {
  name         = "${var.name}-load-balancer"
  user_pool_id = aws_cognito_user_pool.users.id

  # The load balancer wants a secret, and the code flow.
  generate_secret                      = true
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_flows                  = ["code"]
  allowed_oauth_scopes                 = ["openid", "email", "profile"]
  callback_urls                        = [for host in var.hosts : "https://${host}/oauth2/idpresponse"]
  logout_urls                          = [for host in var.hosts : "https://${host}/"]
  supported_identity_providers         = var.identity_providers
  prevent_user_existence_errors        = "ENABLED"

  # The code flow only. A user gets no token that could write attributes.
  explicit_auth_flows = ["ALLOW_REFRESH_TOKEN_AUTH"]

  # Cognito writes mapped attributes by this client, so a provider's groups must be writable here.
  # Without such a provider they are not.
  read_attributes  = ["email", "email_verified", "name", "custom:groups"]
  write_attributes = concat(["email", "name"], var.identity_providers == tolist(["COGNITO"]) ? [] : ["custom:groups"])

  access_token_validity = 60
  token_validity_units {
    access_token = "minutes"
  }
}

resource "aws_cognito_resource_server" "gateway" {
  count        = length(var.machine_clients) > 0 ? 1 : 0
  identifier   = "gateway"
  name         = "${var.name} gateway"
  user_pool_id = aws_cognito_user_pool.users.id

  scope {
    scope_name        = "call"
    scope_description = "Call the gateway as a machine client"
  }
}

resource "aws_cognito_user_pool_client" "machine" {
  for_each     = toset(var.machine_clients)
  name         = "${var.name}-${each.key}"
  user_pool_id = aws_cognito_user_pool.users.id

  generate_secret                      = true
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_flows                  = ["client_credentials"]
  allowed_oauth_scopes                 = aws_cognito_resource_server.gateway[0].scope_identifiers

  # Without these, the client could also sign users in, with a token that writes custom:groups.
  explicit_auth_flows = ["ALLOW_REFRESH_TOKEN_AUTH"]
  write_attributes    = ["name"]
}
