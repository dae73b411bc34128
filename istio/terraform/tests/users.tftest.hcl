# `make test-terraform` runs these tests with a mocked AWS: no account is needed.
# Change nothing here.

mock_provider "aws" {
  mock_resource "aws_cognito_user_pool" {
    defaults = {
      id       = "us-west-2_EXAMPLE"
      arn      = "arn:aws:cognito-idp:us-west-2:123456789012:userpool/us-west-2_EXAMPLE"
      endpoint = "cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE"
    }
  }
  mock_resource "aws_cognito_user_pool_client" {
    defaults = { id = "1example23456789" }
  }
  mock_resource "aws_cognito_resource_server" {
    defaults = { scope_identifiers = ["gateway/call"] }
  }
}

variables {
  domain = "kubeflow"
  hosts  = ["kubeflow.example.com", "argocd.example.com"]
}

run "outputs_are_values_of_the_chart" {
  assert {
    condition     = output.issuer == "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE"
    error_message = output.issuer
  }
  assert {
    condition     = output.clientId == "1example23456789" && output.userPoolDomain == "kubeflow"
    error_message = "${output.clientId} ${output.userPoolDomain}"
  }
  assert {
    condition     = output.redirectTo == "https://kubeflow.auth.us-west-2.amazoncognito.com/logout?client_id=1example23456789&logout_uri=https%3A%2F%2Fkubeflow.example.com%2F"
    error_message = output.redirectTo
  }
  assert {
    condition     = length(output.machineClientIds) == 0 && length(aws_cognito_resource_server.gateway) == 0
    error_message = "there are machine clients"
  }
}

run "load_balancer_may_sign_users_in" {
  assert {
    condition = toset(aws_cognito_user_pool_client.load_balancer.callback_urls) == toset([
      "https://kubeflow.example.com/oauth2/idpresponse", "https://argocd.example.com/oauth2/idpresponse",
    ])
    error_message = join(" ", aws_cognito_user_pool_client.load_balancer.callback_urls)
  }
  assert {
    condition     = toset(aws_cognito_user_pool_client.load_balancer.allowed_oauth_scopes) == toset(["openid", "email", "profile"])
    error_message = join(" ", aws_cognito_user_pool_client.load_balancer.allowed_oauth_scopes)
  }
}

run "users_choose_neither_groups_nor_address" {
  variables {
    machine_clients = ["ci"]
  }
  assert {
    condition     = toset(aws_cognito_user_pool_client.load_balancer.write_attributes) == toset(["email", "name"])
    error_message = join(" ", aws_cognito_user_pool_client.load_balancer.write_attributes)
  }
  assert {
    condition     = toset(aws_cognito_user_pool_client.machine["ci"].write_attributes) == toset(["name"])
    error_message = join(" ", aws_cognito_user_pool_client.machine["ci"].write_attributes)
  }
  assert {
    condition = alltrue([
      for client in [aws_cognito_user_pool_client.load_balancer, aws_cognito_user_pool_client.machine["ci"]] :
      toset(client.explicit_auth_flows) == toset(["ALLOW_REFRESH_TOKEN_AUTH"])
    ])
    error_message = "a client signs users in without the code flow"
  }
  assert {
    condition     = toset(aws_cognito_user_pool.users.user_attribute_update_settings[0].attributes_require_verification_before_update) == toset(["email"])
    error_message = "an unconfirmed address counts"
  }
  assert {
    condition     = aws_cognito_user_pool.users.admin_create_user_config[0].allow_admin_create_user_only
    error_message = "users sign themselves up"
  }
}

run "provider_writes_groups" {
  variables {
    identity_providers = ["ADFS"]
  }
  assert {
    condition     = contains(aws_cognito_user_pool_client.load_balancer.write_attributes, "custom:groups")
    error_message = "mapped groups are lost"
  }
}

run "machine_clients_have_one_scope" {
  variables {
    machine_clients = ["ci"]
  }
  assert {
    condition     = toset(aws_cognito_user_pool_client.machine["ci"].allowed_oauth_scopes) == toset(["gateway/call"])
    error_message = join(" ", aws_cognito_user_pool_client.machine["ci"].allowed_oauth_scopes)
  }
  assert {
    condition     = toset(aws_cognito_user_pool_client.machine["ci"].allowed_oauth_flows) == toset(["client_credentials"])
    error_message = join(" ", aws_cognito_user_pool_client.machine["ci"].allowed_oauth_flows)
  }
}

run "a_host_is_required" {
  command = plan
  variables {
    hosts = []
  }
  expect_failures = [var.hosts]
}
