//! The AWS CLI's output about a load balancer, read from files: `aws elbv2 describe-…` and `aws
//! ec2 describe-security-groups`. Names and meanings are those of the API references of Elastic Load
//! Balancing (2015-12-01) and of EC2. Calls no API.

mod model;
mod sign_in;

use std::path::PathBuf;

pub(crate) use model::{
    Action, Attribute, IpPermission, Listener, LoadBalancer, Output, Rule, SecurityGroup,
    TargetGroup, TargetHealthDescription, load_balancer_of,
};
pub(crate) use sign_in::{DEFAULT_COOKIE, DEFAULT_TIMEOUT, SignIn};

use crate::input::{Document, Trouble};

/// An element of the output, with its place.
pub(crate) struct Located<T> {
    pub(crate) value: T,
    document: usize,
    /// The path of the element, such as `Rules[3]`.
    path: String,
}

impl<T> Located<T> {
    /// Its place alone.
    pub(crate) fn place(&self) -> Located<()> {
        Located {
            value: (),
            document: self.document,
            path: self.path.clone(),
        }
    }
}

/// Everything that the files have.
#[derive(Default)]
pub(crate) struct Snapshot {
    documents: Vec<Document>,
    pub(crate) load_balancers: Vec<Located<LoadBalancer>>,
    pub(crate) listeners: Vec<Located<Listener>>,
    pub(crate) rules: Vec<Located<Rule>>,
    pub(crate) target_groups: Vec<Located<TargetGroup>>,
    pub(crate) target_health: Vec<Located<TargetHealthDescription>>,
    pub(crate) attributes: Vec<Located<Attribute>>,
    pub(crate) security_groups: Vec<Located<SecurityGroup>>,
}

/// The commands for the input of [`Snapshot::read`].
pub(crate) const COMMANDS: &str = r#"# NAME: the name of the load balancer. The commands only read.
ARN=$(aws elbv2 describe-load-balancers --names NAME --query 'LoadBalancers[0].LoadBalancerArn' --output text)
aws elbv2 describe-load-balancers --load-balancer-arns "$ARN" --output json > load-balancers.json
aws elbv2 describe-listeners --load-balancer-arn "$ARN" --output json > listeners.json
for listener in $(aws elbv2 describe-listeners --load-balancer-arn "$ARN" --query 'Listeners[].ListenerArn' --output text); do
  aws elbv2 describe-rules --listener-arn "$listener" --output json > "rules-${listener##*/}.json"
done
"#;

impl Snapshot {
    /// Reads each file: one JSON object, as the AWS CLI prints it.
    ///
    /// # Errors
    /// A file cannot be read, has no known list or an empty one, or a field has another type.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, Trouble> {
        let mut snapshot = Self::default();
        for path in paths {
            let document = Document::read(path, "the output of aws elbv2 describe-...")?;
            snapshot.add(document)?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, document: Document) -> Result<(), Trouble> {
        let output: Output =
            serde_path_to_error::deserialize(&document.value).map_err(|error| {
                let field = error.path().to_string();
                Trouble(document.mistake(field.trim_start_matches('.'), &error.inner().to_string()))
            })?;
        if !Output::LISTS
            .iter()
            .any(|name| document.value.get(name).is_some())
        {
            let what = format!(
                "found no output of the AWS CLI, expected one of {}",
                Output::LISTS.join(", ")
            );
            return Err(Trouble(document.mistake("", &what)));
        }
        // An empty list compares with nothing. Only a target group may have no targets.
        let is_empty = |name: &&&str| {
            let list = document.value.get(**name);
            **name != "TargetHealthDescriptions"
                && list.is_some_and(|list| list.as_array().is_some_and(Vec::is_empty))
        };
        if let Some(name) = Output::LISTS.iter().find(is_empty) {
            let what = "found an empty list, expected at least one element";
            return Err(Trouble(document.mistake(name, what)));
        }
        let position = self.documents.len();
        fn locate<T>(to: &mut Vec<Located<T>>, name: &str, list: Vec<T>, document: usize) {
            let located = |(position, value)| Located {
                value,
                document,
                path: format!("{name}[{position}]"),
            };
            to.extend(list.into_iter().enumerate().map(located));
        }
        locate(
            &mut self.load_balancers,
            "LoadBalancers",
            output.load_balancers,
            position,
        );
        locate(&mut self.listeners, "Listeners", output.listeners, position);
        locate(&mut self.rules, "Rules", output.rules, position);
        locate(
            &mut self.target_groups,
            "TargetGroups",
            output.target_groups,
            position,
        );
        let health = output.target_health_descriptions;
        locate(
            &mut self.target_health,
            "TargetHealthDescriptions",
            health,
            position,
        );
        locate(
            &mut self.attributes,
            "Attributes",
            output.attributes,
            position,
        );
        locate(
            &mut self.security_groups,
            "SecurityGroups",
            output.security_groups,
            position,
        );
        self.documents.push(document);
        Ok(())
    }

    /// File, line and path of the field `field` of an element.
    pub(crate) fn place<T>(&self, located: &Located<T>, field: &str) -> (String, u64, String) {
        let path = if field.is_empty() {
            located.path.clone()
        } else {
            format!("{}.{field}", located.path)
        };
        let document = self.documents.get(located.document);
        let (file, line) = document.map_or((String::new(), 1), |document| {
            (document.file().to_owned(), document.line(&path))
        });
        (file, line, path)
    }
}
