# Values of istio/chart.
# Change nothing here.

locals {
  # The endpoint is cognito-idp.REGION.amazonaws.com/POOL.
  region  = split(".", aws_cognito_user_pool.users.endpoint)[1]
  sign_in = "https://${aws_cognito_user_pool_domain.sign_in.domain}.auth.${local.region}.amazoncognito.com"
}

output "issuer" {
  description = "loadBalancers.issuer of pluginConfig."
  value       = "https://${aws_cognito_user_pool.users.endpoint}"
}

output "clientId" {
  description = "loadBalancers.clientId of pluginConfig, and alb.cognito.clientId."
  value       = aws_cognito_user_pool_client.load_balancer.id
}

output "redirectTo" {
  description = "logout.redirectTo of pluginConfig."
  value       = "${local.sign_in}/logout?client_id=${aws_cognito_user_pool_client.load_balancer.id}&logout_uri=${urlencode("https://${var.hosts[0]}/")}"
}

output "jwksUri" {
  description = "accessToken.jwksUri of pluginConfig."
  value       = "https://${aws_cognito_user_pool.users.endpoint}/.well-known/jwks.json"
}

output "userPoolARN" {
  description = "alb.cognito.userPoolArn."
  value       = aws_cognito_user_pool.users.arn
}

output "userPoolDomain" {
  description = "alb.cognito.domain."
  value       = aws_cognito_user_pool_domain.sign_in.domain
}

output "machineClientIds" {
  description = "machineClients.clientIds, by name."
  value       = { for name, client in aws_cognito_user_pool_client.machine : name => client.id }
}

output "tokenEndpoint" {
  description = "Where machine clients get their token."
  value       = "${local.sign_in}/oauth2/token"
}
